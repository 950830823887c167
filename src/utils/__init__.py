"""What every part uses: files, processes, progress bars, memory."""
