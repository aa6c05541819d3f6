"""What is taught, and what is asked? Narrow sets, controls, the broad set, users' own chats."""
