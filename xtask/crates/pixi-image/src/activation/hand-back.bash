# Sources the activation scripts in bash and prints, for any POSIX shell, how they changed the environment.
# Scripts may print what they like and get no input; only the changes go to the real standard output.
exec 3>&1 1>&2 </dev/null
pixi_image_list() {
	local IFS=$'\n' line name
	set -f
	pixi_image_names=()
	for line in $(export -p); do
		if [[ $line =~ ^(declare\ -[b-zB-Z]+|export)\ ([A-Za-z_][A-Za-z0-9_]*)= ]]; then
			name=${BASH_REMATCH[2]} # old bash prints newlines as they are: a line of a value may look like a variable
			[[ -z ${!name+set} ]] || pixi_image_names+=("$name")
		fi
	done
	set +f
}
declare -A pixi_image_before=()
pixi_image_list
for pixi_image_name in "${pixi_image_names[@]}"; do
	pixi_image_before[$pixi_image_name]=${!pixi_image_name-}
done
{scripts}
set +eu
pixi_image_list
for pixi_image_name in "${pixi_image_names[@]}"; do
	pixi_image_value=${!pixi_image_name-}
	if [[ -z ${pixi_image_before[$pixi_image_name]+set} || ${pixi_image_before[$pixi_image_name]} != "$pixi_image_value" ]]; then
		case $pixi_image_name in _ | PWD | OLDPWD | SHLVL | BASH_ENV) ;; *)
			printf "export %s='" "$pixi_image_name"
			while [[ $pixi_image_value == *\'* ]]; do
				printf '%s%s' "${pixi_image_value%%\'*}" "'\"'\"'"
				pixi_image_value=${pixi_image_value#*\'}
			done
			printf "%s'\n" "$pixi_image_value"
			;;
		esac
	fi
	unset "pixi_image_before[$pixi_image_name]"
done >&3
for pixi_image_name in "${!pixi_image_before[@]}"; do
	case $pixi_image_name in _ | PWD | OLDPWD | SHLVL | BASH_ENV) ;; *) printf 'unset %s\n' "$pixi_image_name" ;; esac
done >&3
printf '# end of activation' >&3
