"""An audit of classifiers: what each responds to, where they differ, what changes their answer.

`jaxsynth.audit.run.run_audit` computes it, `jaxsynth audit` is its command.
"""
