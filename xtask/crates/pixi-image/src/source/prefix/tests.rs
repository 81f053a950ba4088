//! The rules by example, and rattler's own implementation as the oracle of every byte.

use proptest::prelude::*;
use rattler::install::link::copy_and_replace_placeholders;
use rattler_conda_types::package::FileMode;

use super::*;

const PLACEHOLDER: &str = "/build/placehold_placehold_placehold";
const PREFIX: &str = "/app/.pixi/envs/gpu";

fn text(content: &str) -> String {
    String::from_utf8(replace_text(content.as_bytes(), PLACEHOLDER, PREFIX, Subdir::Linux64)).unwrap()
}

/// Looks at windows as small as the longest placeholder, so that most strings reach over the end of one.
fn binary(content: &[u8], placeholder: &str, prefix: &str) -> Result<Vec<u8>, BinaryError> {
    let mut copied = Vec::new();
    let mut write = |bytes: &[u8]| {
        copied.extend_from_slice(bytes);
        Ok(())
    };
    let mut content = content;
    binary::replace_in_windows(&mut content, &Encoded::all(placeholder, prefix), prefix, 8, &mut write)?;
    Ok(copied)
}

#[test]
fn a_text_file_may_change_its_length() {
    assert_eq!(text(&format!("a={PLACEHOLDER}/lib\nb={PLACEHOLDER}")), format!("a={PREFIX}/lib\nb={PREFIX}"));
    assert_eq!(text("nothing"), "nothing");
    let longer = "/x".repeat(200);
    assert_eq!(replace_text(PLACEHOLDER.as_bytes(), PLACEHOLDER, &longer, Subdir::Linux64), longer.as_bytes());
}

#[test]
fn a_c_string_keeps_its_length_and_the_rest_of_it_moves_up() {
    let content = format!("\x7fELF{PLACEHOLDER}/lib:{PLACEHOLDER}/lib64\0next\0").into_bytes();
    let gap = 2 * (PLACEHOLDER.len() - PREFIX.len());
    let content = binary(&content, PLACEHOLDER, PREFIX).unwrap();
    let expected = format!("\x7fELF{PREFIX}/lib:{PREFIX}/lib64{}\0next\0", "\0".repeat(gap));
    assert_eq!(String::from_utf8(content).unwrap(), expected);
}

#[test]
fn a_prefix_that_does_not_fit_in_a_binary_is_refused() {
    match binary(b"\0/short\0/short/lib\0", "/short", PREFIX) {
        Err(BinaryError::PrefixTooLong(error)) => {
            assert_eq!(error, PrefixTooLong { prefix: PREFIX.to_owned(), placeholder_len: 6 });
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(binary(b"no occurrence", "/short", PREFIX).unwrap(), b"no occurrence");
}

#[test]
fn a_string_is_replaced_wherever_windows_end() {
    let string = format!("{PLACEHOLDER}/lib:{PLACEHOLDER}/lib64\0").into_bytes();
    let moved = format!("{PREFIX}/lib:{PREFIX}/lib64").into_bytes();
    for before in 0..200 {
        let content = [vec![b'.'; before], vec![0], string.clone(), b"next\0".to_vec()].concat();
        let mut expected = content.clone();
        expected[before + 1..before + string.len()].fill(0);
        expected[before + 1..before + 1 + moved.len()].copy_from_slice(&moved);
        assert_eq!(binary(&content, PLACEHOLDER, PREFIX).unwrap(), expected, "{before}");
    }
}

#[test]
fn of_a_large_binary_little_is_written_at_a_time() {
    let string = format!("{PLACEHOLDER}/lib\0").into_bytes();
    let content = [vec![1; 300 << 10], string.clone(), vec![2; 1 << 20], string].concat();
    let mut largest = 0;
    let mut write = |bytes: &[u8]| {
        largest = largest.max(bytes.len());
        Ok(())
    };
    replace_binary(&mut content.as_slice(), PLACEHOLDER, PREFIX, &mut write).unwrap();
    assert!(largest <= 512 << 10, "{largest}");
}

#[test]
fn a_shebang_that_linux_would_cut_off_goes_through_env_and_python_through_sh() {
    let deep = format!("/app/{}", "d".repeat(130));
    let shebang =
        |line: &str, subdir| String::from_utf8(replace_text(line.as_bytes(), PLACEHOLDER, &deep, subdir)).unwrap();
    let perl = format!("#!{PLACEHOLDER}/bin/perl -w\nbody {PLACEHOLDER}\n");
    assert_eq!(shebang(&perl, Subdir::Linux64), format!("#!/usr/bin/env perl -w\nbody {deep}\n"));
    assert_eq!(shebang(&perl, Subdir::OsxArm64), format!("#!{deep}/bin/perl -w\nbody {deep}\n"));
    let python = format!("#!{PLACEHOLDER}/bin/python3.12 -s\n");
    let both = format!("#!/bin/sh\n'''exec' \"{deep}/bin/python3.12\" -s \"$0\" \"$@\" #'''\n");
    assert_eq!(shebang(&python, Subdir::Linux64), both);
}

#[test]
fn the_limit_of_a_shebang_is_127_bytes() {
    let rest = "/bin/perl";
    for (length, kept) in [(127, true), (128, false)] {
        let prefix = format!("/{}", "p".repeat(length - 2 - rest.len() - 1));
        let replaced =
            replace_text(format!("#!{PLACEHOLDER}{rest}\n").as_bytes(), PLACEHOLDER, &prefix, Subdir::Linux64);
        assert_eq!(replaced.starts_with(format!("#!{prefix}").as_bytes()), kept, "{length}");
    }
}

#[test]
fn bytes_of_a_shebang_that_are_not_utf8_are_kept() {
    let line = [b"#!".as_slice(), PLACEHOLDER.as_bytes(), b"/bin/x \xff\n"].concat();
    let expected = [b"#!".as_slice(), PREFIX.as_bytes(), b"/bin/x \xff\n"].concat();
    assert_eq!(replace_text(&line, PLACEHOLDER, PREFIX, Subdir::Linux64), expected);
}

/// A piece of a file: what surrounds placeholders, and placeholders in every encoding, also cut short.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let encoded = (0..OffsetEncoding::DEFINED.len(), prop_oneof![3 => Just(PLACEHOLDER), 1 => Just("/build/place")])
        .prop_map(|(encoding, text)| OffsetEncoding::DEFINED[encoding].encode(text));
    prop_oneof![
        4 => encoded,
        2 => Just(vec![0]),
        1 => Just(vec![0, 0]),
        1 => Just(vec![0, 0, 0, 0]),
        1 => Just(b"\n".to_vec()),
        2 => "[a-z/: \\\\]{0,9}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ]
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    let shebang = "#! {0,2}/?[a-z\\\\ \t/]{0,12}".prop_map(|line| line.into_bytes());
    let program = prop_oneof![Just("perl"), Just("python"), Just("python3"), Just("python3.12"), Just("pythonx")];
    let placed = (program, "( -[a-z ]{0,90})?\r?\n")
        .prop_map(|(program, rest)| format!("#!{PLACEHOLDER}/bin/{program}{rest}").into_bytes());
    let start = prop_oneof![4 => Just(Vec::new()), 1 => shebang, 2 => placed];
    (start, proptest::collection::vec(piece(), 0..12)).prop_map(|(start, pieces)| [start, pieces.concat()].concat())
}

fn prefix() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(PREFIX.to_owned()),
        1 => Just(PLACEHOLDER.to_owned()),
        1 => "/[a-z]{100,140}",
        1 => Just("/with a space".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_is_replaced_as_rattler_replaces_it(content in file(), prefix in prefix(), mac in any::<bool>()) {
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        prop_assume!(!content.starts_with(b"#!") || std::str::from_utf8(line).is_ok());
        let subdir = if mac { Subdir::OsxArm64 } else { Subdir::Linux64 };
        let mut expected = Vec::new();
        copy_and_replace_placeholders(&content, &mut expected, PLACEHOLDER, &prefix, &subdir, FileMode::Text).unwrap();
        prop_assert_eq!(replace_text(&content, PLACEHOLDER, &prefix, subdir), expected);
    }

    #[test]
    fn binaries_are_replaced_as_rattler_replaces_them(content in file(), prefix in prefix()) {
        let mut expected = Vec::new();
        let (mode, subdir) = (FileMode::Binary, Subdir::Linux64);
        let oracle = copy_and_replace_placeholders(&content, &mut expected, PLACEHOLDER, &prefix, &subdir, mode);
        match binary(&content, PLACEHOLDER, &prefix) {
            Ok(replaced) => {
                prop_assert!(oracle.is_ok());
                prop_assert_eq!(replaced, expected);
            }
            Err(_) => prop_assert!(oracle.is_err()),
        }
    }
}
