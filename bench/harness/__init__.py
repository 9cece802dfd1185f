"""What the comparisons share: cases, timing, memory, floors, goals, tables and the report."""
