case ${1-} in
'' | -*)
	if [ "$#" -eq 0 ] && [ -t 0 ] && [ -t 1 ]; then
		exec {shell}
	fi
	printf '%s\n' 'usage: COMMAND [ARGUMENT...]' {what} \
		'  docker run --rm IMAGE python --version' '  apptainer run IMAGE.sif python --version' >&2
	exit 64
	;;
esac
exec "$@"
