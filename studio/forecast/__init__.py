"""The forecast of a run beside its bytes: its time, remedies where it does not fit, corrections by earlier runs."""
