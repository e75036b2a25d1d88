"""Write label files: from official lists or from folders of videos."""
