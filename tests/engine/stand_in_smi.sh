#!/usr/bin/sh
# What nvidia-smi prints on a machine with a Tesla T4, as far as `which` reads it.
case "$1" in
-q)
    cat <<'XML'
<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
    <driver_version>535.104.05</driver_version>
    <cuda_version>12.2</cuda_version>
    <attached_gpus>1</attached_gpus>
    <gpu id="00000000:00:1E.0">
        <product_name>Tesla T4</product_name>
        <mig_mode><current_mig>N/A</current_mig><pending_mig>N/A</pending_mig></mig_mode>
        <mig_devices>None</mig_devices>
        <uuid>GPU-5e1f</uuid>
        <fb_memory_usage><total>15360 MiB</total><reserved>399 MiB</reserved></fb_memory_usage>
    </gpu>
</nvidia_smi_log>
XML
    ;;
--query-gpu=*) echo "GPU-5e1f, 7.5" ;;
-L) echo "GPU 0: Tesla T4 (UUID: GPU-5e1f)" ;;
*) exit 2 ;;
esac
