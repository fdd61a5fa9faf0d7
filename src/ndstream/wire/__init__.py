"""Sans-IO parts that two or more protocols share."""
