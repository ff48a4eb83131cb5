"""Where models lie in the plane of both rates: configurations, at their ends and at earlier epochs."""
