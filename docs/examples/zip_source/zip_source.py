"""The images of a ZIP archive, read without unpacking it."""

import zipfile

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, Source, SourceError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


class ZipSource(Source):
    """Image files of a ZIP archive; a ref is the file's name in the archive.

    Args:
        path: the archive.
        folder: only files whose names start with this.
    """

    name = "zip"
    summary = "image files in a ZIP archive"
    schema = "a .zip file with JPEG, PNG or WebP files"
    licence = "that of your files"
    where = "give the .zip file"

    def __init__(self, path, folder=""):
        super().__init__(path, folder=folder)
        try:
            with zipfile.ZipFile(self.existing_path()) as archive:
                self.sizes = {info.filename: info.file_size for info in archive.infolist()}
        except zipfile.BadZipFile as error:
            raise SourceError(f"source 'zip': {self.path} is not a ZIP archive: {error}") from error

    def records(self):
        names = [n for n in self.sizes if n.startswith(self.options["folder"]) and n.lower().endswith(ENDINGS)]
        if not names:
            raise SourceError(f"source 'zip': no images in {self.path}; names must end in {' '.join(ENDINGS)}")
        return (Record(name) for name in sorted(names))

    def stamp(self, ref):
        return self.sizes[ref], self.existing_path().stat().st_mtime_ns

    def read(self, ref):
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(ref)
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise ImageError("unreadable", f"{ref}: {error}") from error
