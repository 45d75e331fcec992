#!/usr/bin/env bash
# Installs Gatling from its Maven artifacts, which do not include its ready-made bundle.
set -euo pipefail

gatling_version=3.9.5
scala_version=2.13.10 # as in Gatling 3.9.5, because the compiler has to match the library
dependency_plugin=org.apache.maven.plugins:maven-dependency-plugin:3.6.1

usage() {
  cat <<END
Usage: install-gatling.sh DIR

Installs Gatling $gatling_version and its dependencies (about 75 MB) into DIR/gatling-$gatling_version with Maven.
Needs java (8 to 20) and mvn. A second run does nothing. An interrupted run leaves nothing behind.
DIR/gatling-$gatling_version/bin/gatling.sh then needs neither Maven nor the network.

  -h, --help   this text
END
}

fail() {
  echo "install-gatling.sh: $*" >&2
  exit 2
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
esac
[[ $# -eq 1 && $1 != "" && $1 != -* ]] || fail "expected one DIR; see --help"

mkdir -p -- "$1" || fail "cannot create the folder $1"
dir=$(cd -- "$1" && pwd)
home=$dir/gatling-$gatling_version
if [ -x "$home/bin/gatling.sh" ]; then
  echo "Gatling $gatling_version is already in $home: nothing to do"
  exit 0
fi
[ ! -e "$home" ] || fail "$home exists without bin/gatling.sh: move it away and run this again"
command -v java > /dev/null || fail "java is missing: install a Java runtime (8 to 20), such as OpenJDK 17"
command -v mvn > /dev/null || fail "mvn is missing: install Apache Maven 3"

# Renamed at the end, so that the folder with the final name is always complete.
build=$(mktemp -d "$dir/.gatling-$gatling_version.XXXXXX")
trap 'rm -rf -- "$build"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$build"
mkdir -p "$build/bin" "$build/conf" "$build/lib"

cat > "$build/pom.xml" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>stress-test</groupId>
  <artifactId>gatling</artifactId>
  <version>$gatling_version</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>io.gatling.highcharts</groupId>
      <artifactId>gatling-charts-highcharts</artifactId>
      <version>$gatling_version</version>
    </dependency>
    <dependency>
      <groupId>org.scala-lang</groupId>
      <artifactId>scala-compiler</artifactId>
      <version>$scala_version</version>
    </dependency>
  </dependencies>
</project>
END

echo "Fetching Gatling $gatling_version with Maven ..." >&2
mvn -B -q -f "$build/pom.xml" "$dependency_plugin:copy-dependencies" "-DoutputDirectory=$build/lib" >&2 ||
  fail "Maven could not fetch Gatling; see its messages above"

cat > "$build/conf/gatling.conf" <<'END'
gatling {
  http.warmUpUrl = ""          # the default sends a request to a public site before each run
  data.enableAnalytics = false # the default reports each run to Gatling's makers
}
END

# Without this file Gatling logs at DEBUG and measures its own logging.
cat > "$build/conf/logback.xml" <<'END'
<?xml version="1.0" encoding="UTF-8"?>
<configuration>
  <appender name="CONSOLE" class="ch.qos.logback.core.ConsoleAppender">
    <encoder>
      <pattern>%d{HH:mm:ss.SSS} [%-5level] %logger{15} - %msg%n%rEx</pattern>
    </encoder>
    <immediateFlush>false</immediateFlush>
  </appender>
  <root level="WARN">
    <appender-ref ref="CONSOLE" />
  </root>
</configuration>
END

# Gatling checks for a newer release once a day and keeps the time of the check in a Java preference. After a check that
# "failed" in the year 9999 it never checks again.
prefs=$build/conf/prefs/.java/.userPrefs/io/gatling/latestVersion
mkdir -p "$prefs"
cat > "$prefs/prefs.xml" <<'END'
<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE map SYSTEM "http://java.sun.com/dtd/preferences.dtd">
<map MAP_XML_VERSION="1.0">
  <entry key="lastCheckTimestamp" value="253402300799000"/>
  <entry key="lastCheckSuccess" value="false"/>
</map>
END

cat > "$build/bin/gatling.sh" <<'END'
#!/usr/bin/env bash
# Compiles the simulations in the folder after -sf when they changed, then runs Gatling with all other options.
# Environment: JAVA_HOME, JAVA_OPTS (default -Xmx1G). Needs neither Maven nor the network.
set -euo pipefail

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

simulations=
options=()
while [ $# -gt 0 ]; do
  case "$1" in
    -sf)
      simulations=$2
      shift 2
      ;;
    *) options+=("$1"); shift ;;
  esac
done
command -v "$java" > /dev/null || { echo "gatling.sh: java is missing" >&2; exit 2; }

classpath=$home/conf:$home/lib/*
if [ -n "$simulations" ]; then
  hash=$(cd -- "$simulations" && find . -name '*.scala' -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum |
    sha256sum | cut -c1-16)
  classes=$home/target/classes-$hash
  if [ ! -d "$classes" ]; then
    echo "Compiling the simulations ..." >&2
    mkdir -p "$home/target"
    build=$(mktemp -d "$home/target/.build.XXXXXX")
    trap 'rm -rf -- "$build"' EXIT
    find "$(cd -- "$simulations" && pwd)" -name '*.scala' -print0 |
      xargs -0 -r "$java" -Xss4M -XX:TieredStopAtLevel=1 -cp "$home/lib/*" scala.tools.nsc.Main \
        -encoding UTF-8 -deprecation -feature -usejavacp -d "$build" >&2 ||
      { echo "gatling.sh: the simulations in $simulations do not compile" >&2; exit 2; }
    mv -T -- "$build" "$classes" 2> /dev/null || [ -d "$classes" ] # another run was faster
    trap - EXIT
  fi
  classpath=$classes:$classpath
  options+=(-bf "$classes")
fi

# Word splitting is wanted: JAVA_OPTS holds several options.
# shellcheck disable=SC2086
exec "$java" ${JAVA_OPTS:--Xmx1G} -Djava.net.preferIPv4Stack=true -Djava.net.preferIPv6Addresses=false \
  "-Djava.util.prefs.userRoot=$home/conf/prefs" --add-opens=java.base/java.lang=ALL-UNNAMED \
  -cp "$classpath" io.gatling.app.Gatling ${options[@]+"${options[@]}"}
END
chmod 755 "$build/bin/gatling.sh"

mv -T -- "$build" "$home"
echo "Gatling $gatling_version is ready: $home/bin/gatling.sh"
