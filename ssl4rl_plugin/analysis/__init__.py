"""What looks at models and runs afterwards: run logs, reports, audits, evaluation, attention, exports."""
