"""What every layer needs: errors, version, safe writing of files. Standard library only."""
