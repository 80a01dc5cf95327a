"""What people see: figures, the comparison, the HTML report."""
