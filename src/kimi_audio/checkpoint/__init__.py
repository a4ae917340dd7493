"""Read, write, convert, quantise and verify model folders in the official layout."""
