//! Numbers that are too large, negative or invalid, and extensions without a bound.

use super::archive::{Archive, Harmless, Refused, below};
use super::listings::{BsdTar, GnuTar, Python};
use super::tar_blocks::{base256, file, header, long, pax, pax_bytes, record};

pub fn archives() -> Vec<Archive> {
    let sized = |bytes: &[u8; 12]| header("it/x", b'0').size_bytes(bytes).bytes(b"x");
    let mut archives = vec![
        below(
            "negative size",
            "CPython CVE-2025-8194, Go: neg-size",
            &[sized(&base256(-512))],
            (GnuTar, "-512 is out of"),
            Refused("not in canonical form"),
        ),
        below(
            "size of 2^63",
            "sums that overflow",
            &[sized(&base256(1 << 63))],
            (GnuTar, "9223372036854775808 is out of"),
            Refused(""),
        ),
        below(
            "size of 2^64 - 1",
            "sums that overflow",
            &[sized(&base256((1 << 64) - 1))],
            (GnuTar, "18446744073709551615 is out of"),
            Refused("fit"),
        ),
        below(
            "size of 2^64 + 1",
            "a reader of eight bytes sees another size",
            &[sized(&base256((1 << 64) + 1))],
            (BsdTar, "overflow"),
            Refused("not in canonical form"),
        ),
        below(
            "small size in base 256",
            "two ways to write a number",
            &[sized(&base256(1))],
            (GnuTar, "it/x"),
            Refused("not in canonical form"),
        ),
        below(
            "size with a sign",
            "two ways to write a number",
            &[sized(b"-0000000001\0")],
            (Python, "-1 'it/x'"),
            Refused("number"),
        ),
        below(
            "size with spaces",
            "two ways to write a number",
            &[sized(b"          1 ")],
            (GnuTar, "it/x"),
            Refused("not in canonical form"),
        ),
        below(
            "size in letters",
            "no number",
            &[sized(b"one byte   \0")],
            (GnuTar, "where numeric off_t value expected"),
            Refused("number"),
        ),
        below("no size", "twelve zeros", &[sized(&[0; 12])], (GnuTar, "it/x"), Refused("")),
        below(
            "size that goes on behind the field",
            "twelve digits",
            &[header("it/x", b'0').size_bytes(b"000000000001").bytes(b"x")],
            (GnuTar, "it/x"),
            Refused("not in canonical form"),
        ),
        below(
            "more content than there is",
            "a size beyond the end",
            &[header("it/x", b'0').size(1 << 30).bytes(b"x")],
            (GnuTar, "1073741824"),
            Refused(""),
        ),
        below(
            "time that fills its field",
            "GNU tar CVE-2022-48303",
            &[header("it/x", b'0').with(257, &[0; 8]).with(136, b"           \x0f").bytes(b"")],
            (BsdTar, "it/x"),
            Refused(""),
        ),
        below(
            "negative time",
            "base 256 with a sign",
            &[header("it/x", b'0').with(136, &base256(-1)).bytes(b"")],
            (GnuTar, "1969-12-31"),
            Refused(""),
        ),
        below(
            "time of another age",
            "2^62 seconds",
            &[header("it/x", b'0').with(136, &base256(1 << 62)).bytes(b"")],
            (GnuTar, "it/x"),
            Harmless(2),
        ),
        below(
            "negative owner",
            "base 256 with a sign",
            &[header("it/x", b'0').with(108, &[0xFF; 8]).bytes(b"")],
            (GnuTar, "-1 is out of uid_t range"),
            Refused(""),
        ),
        below(
            "owner beyond 32 bits",
            "whose is it",
            &[header("it/x", b'0').with(108, &[0x80, 0, 0, 1, 0, 0, 0, 0]).bytes(b"")],
            (GnuTar, "4294967296 is out of uid_t range"),
            Refused("overflows"),
        ),
        below(
            "checksum of signed bytes",
            "old tars sum signed characters",
            &[signed_sum()],
            (GnuTar, "it/"),
            Refused("checksum"),
        ),
        below(
            "checksum of another header",
            "damage",
            &[header("it/x", b'0').summed("000000\0 ", b"")],
            (GnuTar, "Skipping to next header"),
            Refused("checksum"),
        ),
        below(
            "no magic",
            "before POSIX",
            &[header("it/x", b'0').with(257, &[0; 8]).bytes(b"")],
            (GnuTar, "it/x"),
            Refused("magic"),
        ),
    ];
    archives.extend(extensions());
    archives
}

fn extensions() -> Vec<Archive> {
    let one = |records: &[u8]| vec![pax_bytes(b'x', records), file("it/x", b"x")];
    let large = "c".repeat(2 << 20);
    let far = "9".repeat(30);
    vec![
        below(
            "record without a length",
            "CPython CVE-2019-20907",
            &one(b"0 a=b\n"),
            (GnuTar, "missing equal sign"),
            Refused("other than mtime"),
        ),
        below(
            "record longer than its header",
            "libarchive 3251",
            &one(b"999999 mtime=1\n"),
            (GnuTar, "is out of range"),
            Refused("other than mtime"),
        ),
        below(
            "record with a length beyond all numbers",
            "GNU tar CVE-2023-39804",
            &one(format!("{far} a=b\n").as_bytes()),
            (GnuTar, "is out of range"),
            Refused("other than mtime"),
        ),
        below(
            "record with a long key",
            "GNU tar CVE-2023-39804",
            &one(record(&format!("SCHILY.xattr.{}", "k".repeat(4000)), "v").as_bytes()),
            (GnuTar, "it/x"),
            Refused("other than mtime"),
        ),
        below(
            "record without an end",
            "Go: pax-bad-hdr-file",
            &one(b"11 mtime=1.5"),
            (GnuTar, "Malformed extended header"),
            Refused("other than mtime"),
        ),
        below(
            "no records",
            "libarchive 3188",
            &one(b""),
            (Python, "it/x"),
            Refused("other than mtime"),
        ),
        below(
            "record of 2 MiB",
            "Go CVE-2022-2879",
            &one(record("comment", &large).as_bytes()),
            (GnuTar, "it/x"),
            Refused("longer than any path"),
        ),
        below(
            "long name of 2 MiB",
            "Go CVE-2022-2879",
            &[long(b'L', large.as_bytes()), file("it/x", b"x")],
            (Python, "cccc"),
            Refused("longer than any path"),
        ),
        below(
            "header of 2^40 bytes",
            "CPython 151498: read before it is checked",
            &[header("././@PaxHeader", b'x').size_bytes(&base256(1 << 40)).bytes(b"")],
            (GnuTar, "memory exhausted"),
            Refused("longer than any path"),
        ),
        below(
            "two extended headers",
            "Go: pax-multi-hdrs",
            &[precise("1.000000001"), precise("2.000000002"), file("it/x", b"x")],
            (Python, "it/x"),
            Refused("two pax headers"),
        ),
        below(
            "records for all",
            "Go: pax-global-records",
            &[pax(b'g', &[("comment", "x")]), file("it/x", b"x")],
            (Python, "it/x"),
            Refused("type 'g'"),
        ),
        below(
            "extension at the end",
            "libarchive CVE-2024-57970",
            &[long(b'K', &[b'k'; 200])],
            (Python, "end of file header"),
            Refused("has no member"),
        ),
        below(
            "long target that is cut off",
            "libarchive CVE-2024-57970",
            &[long(b'K', &[b'k'; 2000])[..1024].to_vec()],
            (GnuTar, "Unexpected EOF"),
            Refused("cut short"),
        ),
        below(
            "size in an extended header",
            "Go: pax-pos-size-file",
            &[pax(b'x', &[("size", "0")]), file("it/x", &file("it/y", b""))],
            (GnuTar, "it/y"),
            Refused("other than mtime"),
        ),
        below(
            "negative size in an extended header",
            "libarchive 2644",
            &[pax(b'x', &[("size", "-512")]), file("it/x", b"x")],
            (GnuTar, "size=-512 is out of range"),
            Refused("other than mtime"),
        ),
        below(
            "fraction of a size",
            "CPython 8194's neighbour",
            &[pax(b'x', &[("size", "1.5")]), file("it/x", b"x")],
            (GnuTar, "Malformed extended header"),
            Refused("other than mtime"),
        ),
        below(
            "time with two signs",
            "the least number has no opposite",
            &[pax(b'x', &[("mtime", "--9223372036854775808.000000000")]), file("it/x", b"x")],
            (GnuTar, "Malformed extended header"),
            Refused("other than mtime"),
        ),
        below(
            "time that is not a number",
            "Go: pax-bad-mtime-file",
            &[pax(b'x', &[("mtime", "no.123456789")]), file("it/x", b"x")],
            (GnuTar, "Malformed extended header"),
            Refused("other than mtime"),
        ),
        below(
            "time of another writer",
            "a time that is written in another way",
            &[pax(b'x', &[("mtime", "1.500000000")]), file("it/x", b"x")],
            (GnuTar, "it/x"),
            Harmless(2),
        ),
        below(
            "precise time without need",
            "two ways to write a time",
            &[pax(b'x', &[("mtime", "1.000000000")]), file("it/x", b"x")],
            (GnuTar, "it/x"),
            Refused("not in canonical form"),
        ),
    ]
}

fn precise(time: &str) -> Vec<u8> {
    pax(b'x', &[("mtime", time)])
}

/// Returns a name with a byte over 127, and a checksum that counts this byte as negative.
fn signed_sum() -> Vec<u8> {
    let header = header(&b"it/\xE9"[..], b'0');
    let mut block = header.0;
    block[148..156].fill(b' ');
    let sum: i32 = block.iter().map(|&b| i32::from(b as i8)).sum();
    header.summed(&format!("{sum:06o}\0 "), b"")
}
