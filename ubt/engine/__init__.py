"""From a trial to its stages and their artifacts: graph, context, execution, pipeline, runner."""
