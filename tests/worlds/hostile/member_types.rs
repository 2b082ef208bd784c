//! Members of types that snapshots never have, and members that contradict each other.

use super::archive::{Archive, Harmless, Refused, below};
use super::listings::{BsdTar, GnuTar, Python};
use super::tar_blocks::{directory, file, header, long, pax, record};

pub fn archives() -> Vec<Archive> {
    let device = |kind| header("it/dev", kind).with(329, b"0000001\x000000003\0").bytes(b"");
    let realsize = b"77777777777\0";
    let mut archives = vec![
        below(
            "character device",
            "a window into the kernel",
            &[device(b'3')],
            (GnuTar, "crw-r--r--"),
            Refused("type '3'"),
        ),
        below(
            "block device",
            "a window into a disk",
            &[device(b'4')],
            (GnuTar, "brw-r--r--"),
            Refused("type '4'"),
        ),
        below(
            "fifo",
            "opening it blocks",
            &[header("it/fifo", b'6').bytes(b"")],
            (GnuTar, "prw-r--r--"),
            Refused("type '6'"),
        ),
        below(
            "file in one piece",
            "POSIX: type 7",
            &[header("it/x", b'7').bytes(b"")],
            (GnuTar, "Crw-r--r--"),
            Refused("type '7'"),
        ),
        below(
            "old file",
            "before POSIX: type zero",
            &[header("it/x", 0).bytes(b"")],
            (GnuTar, "it/x"),
            Refused(""),
        ),
        below(
            "old directory",
            "before POSIX: a slash makes it one",
            &[header("it/d/", 0).bytes(b"")],
            (GnuTar, "drw-r--r--"),
            Refused(""),
        ),
        below(
            "list of a directory",
            "GNU tar: incremental, renames and removes",
            &[header("it/D/", b'D').size(4).bytes(b"Yx\0\0")],
            (GnuTar, "it/D/"),
            Refused("type 'D'"),
        ),
        below(
            "second part of a file",
            "GNU tar: several volumes",
            &[header("it/M", b'M').size(1).bytes(b"x")],
            (GnuTar, "--Continued"),
            Refused("type 'M'"),
        ),
        below(
            "label",
            "GNU tar: volume header",
            &[header("it/V", b'V').bytes(b"")],
            (GnuTar, "--Volume Header--"),
            Refused("type 'V'"),
        ),
        below(
            "list of long names",
            "GNU tar before 1.11",
            &[header("it/N", b'N').size(9).bytes(b"Rename x\n")],
            (GnuTar, "unknown file type"),
            Refused("type 'N'"),
        ),
        below(
            "access list",
            "Solaris",
            &[header("it/A", b'A').size(1).bytes(b"x")],
            (Python, "'it/A'"),
            Refused("type 'A'"),
        ),
        below(
            "extended header of Solaris",
            "Solaris",
            &[header("it/X", b'X').size(0).bytes(b""), file("it/x", b"")],
            (Python, "it/x"),
            Refused("type 'X'"),
        ),
        below(
            "undefined type",
            "unknown type",
            &[header("it/Z", b'Z').bytes(b"")],
            (GnuTar, "unknown file type"),
            Refused("type 'Z'"),
        ),
        below(
            "setuid program of root",
            "a mode that outlives unpacking",
            &[header("it/su", b'0').mode(0o6777).bytes(b"")],
            (GnuTar, "-rwsrwsrwx"),
            Harmless(2),
        ),
        below(
            "directory that keeps its files",
            "a mode that outlives unpacking",
            &[header("it/d/", b'5').mode(0o1777).bytes(b"")],
            (GnuTar, "drwxrwxrwt"),
            Harmless(2),
        ),
        below(
            "mode with a file type",
            "bits that belong to no mode",
            &[header("it/x", b'0').mode(0o100_644).bytes(b"")],
            (Python, "0o100644"),
            Refused("not in canonical form"),
        ),
        below(
            "directory with content",
            "what follows is content for one reader and a member for another",
            &[header("it/d/", b'5').size(512).bytes(&file("it/hidden", b""))],
            (BsdTar, "it/d/"),
            Refused("only a file"),
        ),
        below(
            "directory without a slash",
            "two ways to name a directory",
            &[header("it/d", b'5').mode(0o755).bytes(b"")],
            (GnuTar, "it/d"),
            Refused("not in canonical form"),
        ),
        below(
            "sparse file of old",
            "GNU tar CVE-2018-20482",
            &[header("it/s", b'S')
                .with(386, b"00000000000\x0000000001000\0")
                .with(483, realsize)
                .size(512)
                .bytes(&[7; 512])],
            (GnuTar, "8589934591"),
            Refused("type 'S'"),
        ),
        below(
            "holes without an end",
            "Go: issue 12435, gnu-nil-sparse-data",
            &[header("it/s", b'S')
                .with(386, b"77777777777\x0077777777777\0")
                .with(483, b"00000000000\0")
                .bytes(b"")],
            (GnuTar, "it/s"),
            Refused("type 'S'"),
        ),
        below(
            "map in another block that is missing",
            "GNU tar: extended sparse header",
            &[header("it/s", b'S').with(482, b"\x01").with(483, realsize).bytes(b"")],
            (GnuTar, "it/s"),
            Refused("type 'S'"),
        ),
        below(
            "sparse 0.0",
            "GNU tar CVE-2019-9923",
            &[
                pax(
                    b'x',
                    &[
                        ("GNU.sparse.size", "99999999999"),
                        ("GNU.sparse.numblocks", "3"),
                        ("GNU.sparse.offset", "0"),
                        ("GNU.sparse.numbytes", "1"),
                    ],
                ),
                file("it/s", b"x"),
            ],
            (Python, "99999999999"),
            Refused("other than mtime"),
        ),
        below(
            "sparse 0.1",
            "GNU tar CVE-2019-9923",
            &[
                pax(
                    b'x',
                    &[
                        ("GNU.sparse.size", "99999999999"),
                        ("GNU.sparse.numblocks", "1"),
                        ("GNU.sparse.map", "0,1"),
                    ],
                ),
                file("it/s", b"x"),
            ],
            (Python, "99999999999"),
            Refused("other than mtime"),
        ),
        below(
            "sparse 1.0",
            "Go CVE-2025-58183: a map without a bound",
            &[
                pax(
                    b'x',
                    &[
                        ("GNU.sparse.major", "1"),
                        ("GNU.sparse.minor", "0"),
                        ("GNU.sparse.name", "../outside/s"),
                        ("GNU.sparse.realsize", "99999999999"),
                    ],
                ),
                file("it/s", b"1\n0\n1\n"),
            ],
            (GnuTar, "../outside/s"),
            Refused("other than mtime"),
        ),
        below(
            "file twice",
            "which one is it",
            &[file("it/x", b"1"), file("it/x", b"2")],
            (GnuTar, "it/x"),
            Refused("appears twice"),
        ),
        below(
            "directory twice",
            "which mode does it have",
            &[directory("it/d"), header("it/d/", b'5').mode(0o777).bytes(b"")],
            (GnuTar, "drwxrwxrwx"),
            Refused("twice"),
        ),
        below(
            "item twice",
            "which one is it",
            &[directory("it")],
            (GnuTar, "it/"),
            Refused("twice"),
        ),
        below(
            "file below a file",
            "a name that is both",
            &[file("it/x", b"1"), file("it/x/y", b"2")],
            (GnuTar, "it/x/y"),
            Refused(""),
        ),
        below(
            "directory that is not a member",
            "a directory without a member keeps its first mode",
            &[file("it/d/x", b"1")],
            (GnuTar, "it/d/x"),
            Refused("does not follow its directory"),
        ),
        below(
            "member behind the end",
            "hidden from readers that stop at the end",
            &[vec![0; 512], file("it/hidden", b"x")],
            (GnuTar, "A lone zero block"),
            Refused("precedes other members"),
        ),
    ];
    archives.extend(smuggled());
    archives
}

/// Returns archives in which some readers see a member where others see content.
fn smuggled() -> Vec<Archive> {
    let inner = || [file("it/../../bystander", b"x"), vec![0; 512]].concat();
    let size = inner().len().to_string();
    let nested = |extensions: Vec<u8>| {
        [extensions, header("it/inner.tar", b'0').size(0).bytes(b""), inner()].concat()
    };
    let sized = || record("size", &size).into_bytes();
    vec![
        below(
            "archive in an archive",
            "TARmageddon, CVE-2025-62518",
            &[nested(super::tar_blocks::pax_bytes(b'x', &sized()))],
            (GnuTar, "1536"),
            Refused("other than mtime"),
        ),
        below(
            "size before a long name",
            "node-tar: the size of an extension from the member's",
            &[nested(
                [super::tar_blocks::pax_bytes(b'x', &sized()), long(b'L', b"it/inner.tar")]
                    .concat(),
            )],
            (Python, "it/inner.tar"),
            Refused("other than mtime"),
        ),
        below(
            "size for all",
            "libarchive 2644: global size",
            &[nested(super::tar_blocks::pax_bytes(b'g', &sized()))],
            (Python, "it/inner.tar"),
            Refused("type 'g'"),
        ),
        below(
            "extension that is skipped",
            "astral-tokio-tar: malformed records are skipped",
            &[super::tar_blocks::pax_bytes(b'x', b"99 path=it/y\n"), file("it/x", b"x")],
            (Python, "it/y"),
            Refused("other than mtime"),
        ),
    ]
}
