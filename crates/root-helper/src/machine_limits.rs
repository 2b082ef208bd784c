//! How much memory and how many processors this process may use.

use std::path::{Path, PathBuf};

/// Returns the bytes of memory of the machine, or fewer if a control group has a lower limit. Returns `None` if the
/// kernel does not report it.
pub fn memory() -> Option<u64> {
    memory_below(Path::new("/"))
}

/// Returns the number of processors that the scheduler allows this process, at least 1.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn memory_below(root: &Path) -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).ok();
    let installed = read(Path::new("proc/meminfo")).as_deref().and_then(installed);
    let groups = read(Path::new("proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups);
    let limits = limits.iter().filter_map(|path| read(path)?.trim().parse().ok());
    installed.into_iter().chain(limits).min()
}

/// Parses `MemTotal` (`man 5 proc_meminfo`). Returns bytes.
fn installed(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// Returns the paths, relative to the root, of the files with the memory limits of all control groups of this
/// process. A limit of a group applies to the groups below it too. A file may contain `max`, which is not a number
/// and so not a limit. In a container the names of groups may be those of the host, so that only the top of the
/// hierarchy exists (`man 7 cgroups`).
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (tops, file): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let below = Path::new(path.trim_start_matches('/'));
        let groups = || below.ancestors();
        files.extend(
            tops.iter().flat_map(|top| groups().map(|it| Path::new(top).join(it).join(file))),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MIB: u64 = 1 << 20;

    /// Creates a file system root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn memory_is_the_smallest_limit_of_machine_and_groups() {
        let machine = ("proc/meminfo", "MemTotal:        1048576 kB\nMemFree:  1 kB\n");
        let second = ("proc/self/cgroup", "0::/ci/job\n");
        let first = ("proc/self/cgroup", "7:pids:/x\n4:cpu,memory:/docker/abc\n0::/\n");
        let unlimited = "9223372036854771712\n";
        for (files, expected) in [
            (&[machine][..], Some(1024 * MIB)),
            (&[], None),
            (&[machine, second, ("sys/fs/cgroup/ci/job/memory.max", "max\n")], Some(1024 * MIB)),
            (&[machine, second, ("sys/fs/cgroup/ci/job/memory.max", "1048576\n")], Some(MIB)),
            (&[machine, second, ("sys/fs/cgroup/ci/memory.max", "2097152\n")], Some(2 * MIB)),
            (
                &[machine, second, ("sys/fs/cgroup/unified/ci/memory.max", "2097152\n")],
                Some(2 * MIB),
            ),
            // The group of another process.
            (&[machine, second, ("sys/fs/cgroup/other/memory.max", "1\n")], Some(1024 * MIB)),
            (
                &[machine, first, ("sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited)],
                Some(1024 * MIB),
            ),
            // In a container the hierarchy begins at the container's own group.
            (
                &[machine, first, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "3145728\n")],
                Some(3 * MIB),
            ),
            (
                &[machine, first, ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "7\n")],
                Some(7),
            ),
        ] {
            assert_eq!(memory_below(root(files).path()), expected, "{files:?}");
        }
    }

    #[test]
    fn memory_and_processors_of_this_machine_are_known() {
        assert!(memory().unwrap() > MIB);
        assert!(processors() >= 1);
    }
}
