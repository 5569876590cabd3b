"""A checkpoint becomes the folder that a team receives: models, their proof, and how they were made."""
