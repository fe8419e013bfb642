"""The evaluation: a Prompt flow that measures answers line by line, and the program that runs and compares with it."""
