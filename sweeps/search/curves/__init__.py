"""A sampler that learns from every judged epoch, and weighs what a configuration may gain against what it costs."""
