"""The mathematics that stages share: training, evaluation, attribution, similarity, augmentation."""
