# Where --nv and --rocm put the host's driver libraries: after everything that the image itself asks for.
case ":${LD_LIBRARY_PATH:-}:" in
*:/.singularity.d/libs:*) ;;
*) LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs ;;
esac
export LD_LIBRARY_PATH
