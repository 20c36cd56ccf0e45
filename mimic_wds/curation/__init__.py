"""From scenes to kept pairs: thresholds, selection policies, the plan of a build and its executors."""
