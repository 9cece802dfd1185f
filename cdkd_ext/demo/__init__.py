"""The demonstration: synthetic people, a teacher, plain and distilled students, and a report of what was measured."""

from cdkd_ext.demo.run import DemoConfig, run_demo

__all__ = ["DemoConfig", "run_demo"]
