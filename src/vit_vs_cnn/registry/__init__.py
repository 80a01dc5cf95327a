"""Who is champion: registration, the gate, promotion and rollback, their history, and a version in memory."""
