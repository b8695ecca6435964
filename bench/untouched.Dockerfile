# An image with the packages of its stack as the index gives them: what it is compared with on a card (bench/untouched.py).
# All else is the image's own, and one layer on top of it, so that `docker save` of both holds what they share once.
ARG LIGHT
ARG VENV
ARG NVIDIA
FROM ${VENV} AS venv
FROM ${NVIDIA} AS nvidia
FROM ${LIGHT} AS light

# -- difference: files of the two environments that the image lacks, or holds otherwise.
FROM light AS difference
USER root
ARG LEFT_OUT=""
ARG WHOLE="no"
RUN --mount=type=bind,target=/run/build/images/device_code \
    --mount=type=bind,from=venv,source=/opt/venv,target=/run/venv \
    --mount=type=bind,from=nvidia,source=/opt/venv,target=/run/nvidia \
    cd /run/build && export PYTHONDONTWRITEBYTECODE=1 && mkdir /difference && python=/opt/venv/bin/python \
    && "$python" -m images.device_code.layers difference /run/nvidia /opt/venv /difference \
    && "$python" -m images.device_code.layers difference /run/venv /opt/venv /difference \
    && cd /difference/lib/python3*/site-packages && rm -rf $LEFT_OUT && export PYTHONPATH=/run/build && if [ "$WHOLE" = no ]; then \
        "$python" -m images.device_code.unused drop . && "$python" -m images.device_code.unused nvidia . ; fi

FROM light
USER root
COPY --from=difference /difference/ /opt/venv/
# What the image has instead of NVIDIA's libraries is no package here: their own files are back under their names.
RUN rm -rf /opt/venv/lib/python3*/site-packages/cardstock_stand_ins-*
USER 10001:10001
