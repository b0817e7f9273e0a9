"""Graph to graph, and graph to partition: the passes that `graphc.pipeline` runs in order."""
