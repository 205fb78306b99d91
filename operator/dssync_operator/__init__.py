"""The operator: turns a DSSyncJob into pods and keeps its status true.

Read it from the right: ``plan`` says what to do with one job and is pure; ``reconcile`` observes,
plans and acts; ``queue`` decides when; ``handlers`` and ``watch`` only say that something moved.
"""
