"""Lessons and what helps a learner start: the doctor."""
