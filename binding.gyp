{
  "targets": [
    {
      "target_name": "caisson",
      "sources": ["native/addon/addon.cc"],
      "include_dirs": ["<!(node -p \"require('node-api-headers').include_dir\")", "<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS"],
      "cflags": ["-O2", "-ffunction-sections", "-fdata-sections", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-cast-function-type"],
      "cflags_cc": ["-std=c++17", "-fno-exceptions"],
      "ldflags": ["-Wl,-z,relro,-z,now", "-static-libstdc++", "-static-libgcc", "-Wl,--gc-sections,--exclude-libs,ALL", "-s"]
    }
  ]
}
