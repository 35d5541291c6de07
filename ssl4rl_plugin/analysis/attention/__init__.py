"""`ssl4rl attention`: where a vision-language model looks while it writes its answer.

traces    runs the model and records the attention of the answer's tokens to the tokens of the picture
overlay   draws it on the picture
"""
