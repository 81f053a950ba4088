//! Tests of the layout, byte by byte, and of the reader against damaged and hostile files.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

const DEFINITION_TEXT: &[u8] = b"Bootstrap: scratch\n";
const METADATA: &[u8] = br#"{"type":"container"}"#;

fn spec() -> SifSpec<'static> {
    SifSpec {
        architecture: SifArchitecture::Amd64,
        created: 1_700_000_000,
        definition: DEFINITION_TEXT,
        inspect_metadata: METADATA,
        content_id: [0xff; 32],
        squashfs_size: 8192,
    }
}

fn squashfs() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..4].copy_from_slice(b"hsqs");
    bytes
}

fn sif() -> Vec<u8> {
    [prefix(&spec()).unwrap(), squashfs()].concat()
}

/// Where field `at` of descriptor `index` (from 0 on) stands.
fn field(index: usize, at: usize) -> usize {
    4096 + 585 * index + at
}

fn with(at: usize, bytes: &[u8]) -> Cursor<Vec<u8>> {
    let mut sif = sif();
    sif[at..at + bytes.len()].copy_from_slice(bytes);
    Cursor::new(sif)
}

#[test]
fn the_header_is_what_apptainer_expects() {
    let sif = sif();
    assert_eq!(sif[..32], *b"#!/usr/bin/env run-singularity\n\0");
    assert_eq!(sif[32..48], *b"SIF_MAGIC\x0001\x0002\0");
    assert_eq!(sif[48..64], *b"\xff\xff\xff\xff\xff\xff\x8f\xff\xbf\xff\xff\xff\xff\xff\xff\xff");
    let numbers: Vec<u64> = (64..128).step_by(8).map(|at| u64_at(&sif, at)).collect();
    let data_size = 131072 + 8192 - 32176;
    assert_eq!(numbers, [1_700_000_000, 1_700_000_000, 45, 48, 4096, 28080, 32176, data_size]);
    assert_eq!(data_size, sif.len() as u64 - 32176);
    assert!(sif[128..4096].iter().all(|byte| *byte == 0));
}

#[test]
fn the_descriptors_are_what_apptainer_expects() {
    let sif = sif();
    let number = |index, at| u64_at(&sif, field(index, at));
    for (index, data_type, offset, size, padding) in [
        (0, 0x4001, 32768, DEFINITION_TEXT.len(), 592),
        (1, 0x4006, 36864, METADATA.len(), 4096 - DEFINITION_TEXT.len()),
        (2, 0x4004, 131072, 8192, 131072 - 36864 - METADATA.len()),
    ] {
        assert_eq!(u32_at(&sif, field(index, 0)), data_type);
        assert_eq!(sif[field(index, 4)], 1, "in use");
        assert_eq!(u32_at(&sif, field(index, 5)), index as u32 + 1, "id");
        assert_eq!(u32_at(&sif, field(index, 9)), 0xf000_0001, "group");
        assert_eq!(u32_at(&sif, field(index, 13)), 0, "link");
        assert_eq!((number(index, 17), number(index, 25)), (offset, size as u64));
        assert_eq!(number(index, 33), (size + padding) as u64, "size with padding");
        assert_eq!((number(index, 41), number(index, 49)), (1_700_000_000, 1_700_000_000));
        assert_eq!((number(index, 57), number(index, 65)), (0, 0), "owner and group");
    }
    assert_eq!(sif[field(1, 73)..][..22], *b"inspect-metadata.json\0");
    assert_eq!(sif[field(2, 201)..][..12], *b"\x01\0\0\0\x02\0\0\0\x30\x32\0\0");
    assert!(sif[field(3, 0)..32768].iter().all(|byte| *byte == 0), "45 free descriptors");
    assert_eq!(sif[32768..][..DEFINITION_TEXT.len()], *DEFINITION_TEXT);
    assert_eq!(sif[36864..][..METADATA.len()], *METADATA);
    assert_eq!(sif[131072..], squashfs());
}

#[test]
fn what_is_written_is_read_back() {
    for (definition, metadata) in
        [(vec![], vec![]), (vec![b'd'; 4096], vec![b'm'; 4097]), (vec![b'd'; 90_000], vec![1])]
    {
        let spec = SifSpec { definition: &definition, inspect_metadata: &metadata, ..spec() };
        let sif = [prefix(&spec).unwrap(), squashfs()].concat();
        let found = descriptors(&mut Cursor::new(&sif)).unwrap();
        let content = |index: usize| &sif[found[index].offset as usize..][..found[index].size as usize];
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].data_type, content(0)), (DEFINITION, definition.as_slice()));
        assert_eq!((found[1].data_type, content(1)), (JSON, metadata.as_slice()));
        assert_eq!(found[1].name, INSPECT_METADATA);
        let partition = found[2].partition.as_ref().unwrap();
        assert_eq!((partition.file_system, partition.role, partition.architecture.as_str()), (1, 2, "02"));
        let (offset, size) = find_squashfs(&mut Cursor::new(&sif)).unwrap();
        assert_eq!((offset, size), (131072, 8192));
        assert_eq!(sif[offset as usize..], squashfs());
    }
}

#[test]
fn texts_for_which_there_is_no_room_are_refused() {
    let room = 131072 - 32768 - 4096;
    let with = |bytes: usize| prefix(&SifSpec { definition: &vec![b'd'; bytes], ..spec() }).map(|bytes| bytes.len());
    assert_eq!(with(room).unwrap(), 131072);
    let error = with(room + 1).unwrap_err().to_string();
    assert!(error.contains(&(room + 1 + METADATA.len()).to_string()) && error.contains("hint: "), "{error}");
}

#[test]
fn each_architecture_has_its_own_code() {
    for (name, code) in [("amd64", "02"), ("arm64", "04"), ("ppc64le", "06"), ("s390x", "11"), ("riscv64", "12")] {
        let architecture = SifArchitecture::from_oci(name).unwrap();
        let bytes = prefix(&SifSpec { architecture, ..spec() }).unwrap();
        assert_eq!(text(&bytes[45..48]), code);
        assert_eq!(text(&bytes[field(2, 209)..][..3]), code);
    }
    assert_eq!(SifArchitecture::from_oci("386"), None);
}

#[test]
fn the_same_content_gives_the_same_bytes_and_other_content_another_uuid() {
    assert_eq!(prefix(&spec()).unwrap(), prefix(&spec()).unwrap());
    let other = SifSpec { content_id: [1; 32], ..spec() };
    assert_ne!(prefix(&other).unwrap()[48..64], prefix(&spec()).unwrap()[48..64]);
    assert_eq!(uuid(&[1; 32]).to_string(), "01010101-0101-8101-8101-010101010101");
}

#[test]
fn what_is_no_sif_is_called_so() {
    for bytes in [vec![], b"hsqs".to_vec(), vec![0; 5000], sif()[..127].to_vec()] {
        assert!(matches!(find_squashfs(&mut Cursor::new(bytes)), Err(SifError::NotSif)));
    }
    assert!(matches!(find_squashfs(&mut with(42, b"02")), Err(SifError::Version(version)) if version == "02"));
}

#[test]
fn places_outside_the_file_are_damage() {
    for (at, value) in [
        (88, u64::MAX),
        (88, 4097),
        (88, 1 << 60),
        (96, u64::MAX),
        (96, u64::MAX - 28080),
        (96, 1 << 40),
        (field(2, 17), u64::MAX),
        (field(2, 17), 40961),
        (field(2, 25), 8193),
        (field(2, 25), u64::MAX),
        (field(0, 25), 1 << 63),
    ] {
        let error = find_squashfs(&mut with(at, &value.to_le_bytes())).unwrap_err();
        assert!(matches!(error, SifError::Damaged(_)), "{at} {value}: {error}");
    }
    let short = sif()[..30000].to_vec();
    let error = find_squashfs(&mut Cursor::new(short)).unwrap_err().to_string();
    assert!(error.contains("cut short"), "{error}");
}

#[test]
fn only_a_plain_squashfs_as_primary_system_partition_will_do() {
    let partition = |file_system: u8, role: u8| with(field(2, 201), &[file_system, 0, 0, 0, role, 0, 0, 0]);
    assert!(find_squashfs(&mut partition(1, 2)).is_ok());
    for mut wrong in [partition(2, 2), partition(5, 2), partition(1, 1), partition(1, 4)] {
        assert!(matches!(find_squashfs(&mut wrong), Err(SifError::NoSquashfs(_))));
    }
    let error = find_squashfs(&mut partition(5, 2)).unwrap_err().to_string();
    assert!(error.contains("encrypted"), "{error}");
    assert!(matches!(find_squashfs(&mut with(field(2, 4), &[0])), Err(SifError::NoSquashfs(_))), "a free descriptor");
    let copy = sif()[field(2, 0)..field(3, 0)].to_vec();
    assert!(matches!(find_squashfs(&mut with(field(3, 0), &copy)), Err(SifError::Damaged(_))), "two of them");
    for mut wrong in [with(SQUASHFS_AT, b"x"), with(field(2, 25), &95u64.to_le_bytes())] {
        assert!(matches!(find_squashfs(&mut wrong), Err(SifError::Damaged(_))), "not a squashfs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_the_reader_panic_or_point_outside_the_file(
        changes in proptest::collection::vec((prop_oneof![0..128usize, 4096..6000usize], any::<u8>()), 1..20),
        length in 0..140_000usize,
    ) {
        let mut sif = sif();
        for (at, byte) in changes {
            sif[at] = byte;
        }
        sif.truncate(length);
        if let Ok(found) = descriptors(&mut Cursor::new(&sif)) {
            prop_assert!(found.iter().all(|object| object.offset + object.size <= sif.len() as u64));
        }
        if let Ok((offset, size)) = find_squashfs(&mut Cursor::new(&sif)) {
            prop_assert!(offset + size <= sif.len() as u64);
        }
    }
}
