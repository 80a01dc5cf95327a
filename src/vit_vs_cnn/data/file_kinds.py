"""Which files of a folder are images, which are others, and what systems and programs leave there."""

import re

HEAD_BYTES = 132

# By lower-case name, beside everything hidden: Windows, macOS, Linux, Synology's and QNAP's servers, Python.
_CLUTTER = frozenset(
    {
        "$recycle.bin",
        "system volume information",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "icon\r",
        "lost+found",
        "@eadir",
        "#recycle",
        "@recycle",
        "__pycache__",
    }
)

# Also of formats that cannot be decoded here: such a file is an image that cannot be read, and never passed over.
_IMAGE_SUFFIXES = re.compile(
    r".*\.(apng|arw|avifs?|bmp|cr2|cr3|dcm|dds|dib|dicom|dng|eps|exr|gif|hdr|heic|heif|hif|ico|j2c|j2k|jfif|jp2|jpc|jpe|jpeg"
    r"|jpf|jpg|jpx|jxl|mpo|nef|nii|orf|pbm|pcx|pfm|pgm|png|pnm|ppm|psd|raf|raw|rw2|svg|tga|tif|tiff|webp|xcf)",
    re.IGNORECASE | re.DOTALL,
)

_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG",
    b"GIF8",
    b"II*\0",  # TIFF and most raw formats of cameras
    b"MM\0*",
    b"II+\0",  # BigTIFF
    b"MM\0+",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cJXL ",
    b"8BPS",  # Photoshop
)
_BMP = re.compile(rb"BM.{4}\0{4}", re.DOTALL)
_NETPBM = re.compile(rb"P[1-6]\s")
# How an ISO base media file says that it is a HEIC image; Apple's cameras write the first.
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
_BRANDS = HEIC_BRANDS | {b"avif", b"avis"}


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or kept by a system for itself."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends as that of an image."""
    return bool(_IMAGE_SUFFIXES.fullmatch(name))


def is_image_head(head: bytes) -> bool:
    """Whether a file that begins with these HEAD_BYTES, or fewer, is an image by its signature."""
    return bool(
        head.startswith(_SIGNATURES)
        or _BMP.match(head)
        or _NETPBM.match(head)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)
        or head[128:132] == b"DICM"
    )
