"""What is found out about graphs and plans without changing them: arena, barriers, constants, drawings."""
