"""What is read and written: the kinds of file, photos, masks, videos, annotations; each with its checks."""
