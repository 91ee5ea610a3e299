"""Launchers: flags -> frozen config -> one library call -> report."""
