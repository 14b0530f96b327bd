//! alejandra's command line as far as the gate uses it, over the library: crates.io has the library alone.
//!
//! The flags, the exit statuses and what is printed are those of the real one, version 3.1.0.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::exit;
use std::{env, fs};

use alejandra::format::{in_fs, in_memory, Status};

const USAGE: i32 = 2; // clap's

fn main() {
    let (mut check, mut quiet, mut include) = (false, 0, Vec::new());
    for word in env::args().skip(1) {
        match word.as_str() {
            "--check" | "-c" => check = true,
            "--quiet" | "-q" => quiet += 1,
            "--version" => {
                println!("Alejandra {}", env!("CARGO_PKG_VERSION"));
                exit(0);
            }
            "-" => include.push(word),
            option if option.starts_with('-') => {
                eprintln!("error: Found argument '{option}' which wasn't expected, or isn't valid in this context");
                exit(USAGE);
            }
            _ => include.push(word),
        }
    }
    if include.is_empty() || include == ["-"] {
        stdin();
    }
    let mut paths = BTreeSet::new();
    for path in &include {
        walk(Path::new(path), &mut paths);
    }
    files(paths, check, quiet);
}

fn stdin() -> ! {
    let before = std::io::read_to_string(std::io::stdin()).expect("Unable to read stdin.");
    let (status, after) = in_memory("<anonymous file on stdin>".to_string(), before);
    print!("{after}");
    if let Status::Error(error) = status {
        eprintln!("\nFailed! 1 error found at:\n- <anonymous file on stdin>: {error}");
        exit(1);
    }
    exit(0);
}

/// What cannot be found is passed over, as the real one does.
fn walk(path: &Path, found: &mut BTreeSet<String>) {
    let Ok(about) = fs::symlink_metadata(path) else { return };
    let name = path.to_str().expect("a name in UTF-8");
    if about.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), found);
        }
    } else if about.is_file() && name.ends_with(".nix") {
        found.insert(name.to_string());
    }
}

fn files(paths: BTreeSet<String>, check: bool, quiet: u8) -> ! {
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    if quiet == 0 {
        eprintln!("Checking style in {} file{} using 1 thread.\n", paths.len(), plural(paths.len()));
    }
    let (mut changed, mut errors) = (0, Vec::new());
    for path in paths {
        match in_fs(path.clone(), !check) {
            Status::Changed(true) => {
                changed += 1;
                if quiet == 0 {
                    println!("{}: {path}", if check { "Requires formatting" } else { "Formatted" });
                }
            }
            Status::Changed(false) => {}
            Status::Error(error) => errors.push((path, error)),
        }
    }
    if !errors.is_empty() {
        if quiet < 2 {
            eprintln!("\nFailed! {} error{} found at:", errors.len(), plural(errors.len()));
            for (path, error) in errors {
                eprintln!("- {path}: {error}");
            }
        }
        exit(1);
    }
    if quiet == 0 && changed == 0 {
        eprintln!("\nCongratulations! Your code complies with the Alejandra style.");
    }
    exit(if check && changed > 0 { 2 } else { 0 });
}
