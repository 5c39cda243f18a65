"""What several rooms need and none owns: checks of arguments, and the end of tasks."""
