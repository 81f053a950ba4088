# Adds the environment's catalog of XML schemas in front of those that the caller names.
if test -n "${XML_CATALOG_FILES:-}"; then
    xml_catalog_files_libxml2="${XML_CATALOG_FILES}"
else
    xml_catalog_files_libxml2=""
    XML_CATALOG_FILES="file://${CONDA_PREFIX}/etc/xml/catalog file:///etc/xml/catalog"
fi
conda_catalog_files=""
for path in ${XML_CATALOG_FILES}; do
    while test "${path# }" != "${path}"; do
        path="${path# }"
    done
    case " ${conda_catalog_files} " in
    *" ${path} "*) continue ;;
    esac
    conda_catalog_files="${conda_catalog_files:+${conda_catalog_files} }${path}"
done
export XML_CATALOG_FILES="${conda_catalog_files}"
export xml_catalog_files_libxml2
unset conda_catalog_files path
