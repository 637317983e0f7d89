"""What a model's answers are worth: questions, scores, intervals, verdict. No torch.

evaluating.py runs an evaluation, worker/evaluate.py loads the models, runs/evaluations.py reads what was found.
"""
