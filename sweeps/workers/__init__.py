"""Which workers a sweep has and asks for, and what lies with them. Knows no Ray."""
