//! What a Linux program needs of the system that it runs on, read from its ELF headers.

use std::collections::BTreeSet;

use object::elf::{self, FileHeader64};
use object::endian::LittleEndian;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};

/// A program for 64-bit, little-endian Linux, which is what container images are for.
pub struct Program {
    bytes: Vec<u8>,
    /// The architecture in Go's terms, as images carry it.
    pub architecture: &'static str,
    /// The file names of the libraries that it is linked to.
    pub libraries: BTreeSet<String>,
    /// Library and version of each symbol version that it asks for, for example `libc.so.6` and `GLIBC_2.34`.
    pub versions: BTreeSet<(String, String)>,
}

impl Program {
    /// Reads the headers; the error says what `bytes` are instead, as the end of the sentence "it is ...".
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let (architecture, libraries, versions) = read(&bytes)?;
        Ok(Self { bytes, architecture, libraries, versions })
    }

    /// The program without what only debuggers read: the sections that follow its last segment, names and lines.
    pub fn stripped(&self) -> Vec<u8> {
        let Some(end) = end_of_segments(&self.bytes) else { return self.bytes.clone() };
        let mut bytes = self.bytes[..end].to_vec();
        // e_shoff, and e_shnum and e_shstrndx, of the 64-bit header (System V ABI, "ELF Header"): no section table.
        for field in [40..48, 60..64] {
            bytes[field].fill(0);
        }
        bytes
    }
}

/// Where the last segment ends: the loader reads nothing behind it.
fn end_of_segments(bytes: &[u8]) -> Option<usize> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let segments = header.program_headers(LittleEndian, bytes).ok()?;
    let table = header.e_phoff(LittleEndian) + std::mem::size_of_val(segments) as u64;
    let ends =
        segments.iter().map(|segment| segment.p_offset(LittleEndian).saturating_add(segment.p_filesz(LittleEndian)));
    let end = usize::try_from(ends.max()?.max(table)).ok()?;
    (end >= 64 && end <= bytes.len()).then_some(end)
}

/// The symbol versions that a library defines.
pub fn defined_versions(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let broken = |error: object::Error| format!("a broken ELF file ({error})");
    let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(broken)?;
    let sections = file.elf_section_table();
    let mut defined = BTreeSet::new();
    let Some((mut definitions, link)) = sections.gnu_verdef(LittleEndian, bytes).map_err(broken)? else {
        return Ok(defined);
    };
    let strings = sections.strings(LittleEndian, bytes, link).map_err(broken)?;
    while let Some((_, mut names)) = definitions.next().map_err(broken)? {
        if let Some(name) = names.next().map_err(broken)? {
            defined.insert(text(name.name(LittleEndian, strings).map_err(broken)?));
        }
    }
    Ok(defined)
}

type Needs = (&'static str, BTreeSet<String>, BTreeSet<(String, String)>);

fn read(bytes: &[u8]) -> Result<Needs, String> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err("no ELF file".to_owned());
    }
    let broken = |error: object::Error| format!("not a 64-bit little-endian ELF file ({error})");
    let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(broken)?;
    let header = file.elf_header();
    if !matches!(header.e_ident.os_abi, elf::ELFOSABI_NONE | elf::ELFOSABI_LINUX) {
        return Err("an ELF file of another system than Linux".to_owned());
    }
    let architecture = match header.e_machine(LittleEndian) {
        elf::EM_X86_64 => "amd64",
        elf::EM_AARCH64 => "arm64",
        elf::EM_PPC64 => "ppc64le",
        other => return Err(format!("an ELF file for a machine of the number {other}")),
    };
    if !matches!(header.e_type(LittleEndian), elf::ET_EXEC | elf::ET_DYN) {
        return Err("an ELF file, but no program".to_owned());
    }
    let mut libraries = BTreeSet::new();
    let dynamic = file.elf_dynamic_table().map_err(broken)?;
    for entry in dynamic.iter() {
        if entry.tag == elf::DT_NEEDED {
            libraries.insert(text(dynamic.string(entry).map_err(broken)?));
        }
    }
    let sections = file.elf_section_table();
    let mut versions = BTreeSet::new();
    if let Some((mut needs, link)) = sections.gnu_verneed(LittleEndian, bytes).map_err(broken)? {
        let strings = sections.strings(LittleEndian, bytes, link).map_err(broken)?;
        while let Some((need, mut names)) = needs.next().map_err(broken)? {
            let library = text(need.file(LittleEndian, strings).map_err(broken)?);
            while let Some(name) = names.next().map_err(broken)? {
                versions.insert((library.clone(), text(name.name(LittleEndian, strings).map_err(broken)?)));
            }
        }
    }
    Ok((architecture, libraries, versions))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn this_test_itself_is_read_and_runs_when_stripped() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let size = own.len();
        let program = Program::parse(own).unwrap();
        assert!(program.libraries.contains("libc.so.6"), "{:?}", program.libraries);
        assert!(
            program.versions.iter().any(|(library, version)| library == "libc.so.6" && version.starts_with("GLIBC_"))
        );
        let stripped = program.stripped();
        assert!(stripped.len() < size, "{} of {size}", stripped.len());
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("program");
        std::fs::write(&place, &stripped).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
        let ran = std::process::Command::new(&place).arg("--list").output().unwrap();
        assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("this_test_itself"));
    }

    #[test]
    fn what_is_no_program_is_said_to_be_none() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut object = own.clone();
        object[16] = 1; // e_type: ET_REL
        let mut foreign = own.clone();
        foreign[18] = 243; // e_machine: RISC-V
        for (bytes, said) in [
            (b"#!/bin/sh\n".to_vec(), "no ELF file"),
            (Vec::new(), "no ELF file"),
            (own[..100].to_vec(), "not a 64-bit"),
            (object, "no program"),
            (foreign, "243"),
        ] {
            let error = Program::parse(bytes).err().unwrap();
            assert!(error.contains(said), "{error}");
        }
    }
}
