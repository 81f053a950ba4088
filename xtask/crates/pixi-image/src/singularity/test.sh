# Checks the environment; says what is wrong and exits 1.
fail() {
	printf 'test failed: %s\n' "$1" >&2
	exit 1
}
[ "${CONDA_PREFIX-}" = {prefix} ] || fail 'the environment is not active'
found=0
for record in {prefix}/conda-meta/*.json; do
	[ -r "$record" ] && found=$((found + 1))
done
[ "$found" -eq {records} ] || fail "conda-meta holds $found of {records} packages"
