#!/usr/bin/env bash
# In the runtime image, and its default command: start the scoring server from the code that it finds.  phikit-serve
#
# The image holds no code. Here serving/ is mounted at /phikit/serving; on Azure the folder that serving/deployment.yaml
# uploads lies somewhere below /var/azureml-app, and AML_APP_ROOT names the folder of its scoring script. That folder may
# be serving/ itself, by whatever name, or the one that it lies in. Settings: serving/settings.py.
set -euo pipefail

for place in "${AML_APP_ROOT:-}" /phikit /var/azureml-app /var/azureml-app/*; do
    for code in "${place:+$place/serving}" "$place"; do
        if [ -f "$code/__main__.py" ] && [ -f "$code/engines.py" ]; then break 2; fi
        code=""
    done
done
if [ -z "$code" ]; then
    echo "error: no serving code in AML_APP_ROOT (${AML_APP_ROOT:-unset}), /phikit or /var/azureml-app:" \
        "mount serving/ at /phikit/serving, or give another command" >&2
    exit 2
fi
code="$(realpath "$code")"
if [ "$(basename "$code")" = serving ]; then
    cd "$(dirname "$code")"
else
    # the package's name is its folder's
    cd "$(mktemp -d)"
    ln -s "$code" serving
fi
export PYTHONDONTWRITEBYTECODE=1
# in place of this shell, so that a stop signal reaches the server itself
exec python -m serving
