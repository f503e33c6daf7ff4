"""A run as one HTML file: see `page.write_report`."""
