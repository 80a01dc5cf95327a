"""Who is champion: registration, the gate, promotion, rollback, their history, and the proof of a version."""
