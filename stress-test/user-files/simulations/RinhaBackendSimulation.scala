import java.io.PrintWriter
import java.nio.charset.StandardCharsets.UTF_8
import java.nio.file.{ Files, Paths }
import java.util.Locale

import scala.concurrent.duration._
import scala.jdk.CollectionConverters._
import scala.util.Try

import com.fasterxml.jackson.databind.{ JsonNode, ObjectMapper }
import com.fasterxml.jackson.databind.node.ObjectNode
import io.gatling.core.Predef._
import io.gatling.http.Predef._

/**
 * The contest's load, 205 s of open workload, with stricter checks than the contest's.
 *
 * Environment: BASE_URL (default http://127.0.0.1:9999), SECONDS_SCALE (default 1: every duration is
 * multiplied by it, the rates stay), CREATED_FILE (default none: row and Location of each 201).
 * Data files: pessoas-payloads.tsv (payload, status, accept) and termos-busca.tsv (t).
 */
class RinhaBackendSimulation extends Simulation {
  private val scale = sys.env.getOrElse("SECONDS_SCALE", "1").toDouble
  require(scale > 0 && scale <= 1, s"SECONDS_SCALE: expected a number above 0 and up to 1, got $scale")

  private def seconds(n: Int): FiniteDuration = (n * 1000 * scale).round.millis

  private val httpProtocol = http
    .baseUrl(sys.env.getOrElse("BASE_URL", "http://127.0.0.1:9999"))
    .userAgentHeader("Agente do Caos - 2023")

  // A queue, not a circle: the expected answers hold for the first K rows, each sent once. The row number
  // belongs to the record, because a counter beside the feeder could hand two users each other's row.
  private val payloads = tsv("pessoas-payloads.tsv").readRecords.zipWithIndex.map { case (record, row) =>
    record + ("row" -> row)
  }.toArray.queue

  private val created = sys.env.get("CREATED_FILE").map { path =>
    new PrintWriter(Files.newBufferedWriter(Paths.get(path), UTF_8))
  }

  private val createAndRead = scenario("create and read")
    .feed(payloads)
    .exec(
      http("create")
        .post("/pessoas")
        .header("content-type", "application/json")
        .body(StringBody("#{payload}"))
        .check(
          status.saveAs("answer"),
          status.in(session => session("accept").as[String].split(',').map(_.toInt).toSeq)
        )
        .checkIf((response, _) => response.status.code == 201)(header("Location").saveAs("location"))
    )
    .doIf(session => session("answer").asOption[Int].contains(201) && session.contains("location")) {
      exec { session =>
        created.foreach(file => file.synchronized {
          file.print(s"${session("row").as[Int]}\t${session("location").as[String]}\n")
        })
        session
      }
        .pause(1.millisecond, 30.milliseconds)
        .exec(
          http("read")
            .get("#{location}")
            .check(
              status.is(200),
              bodyString
                .transformWithSession((body: String, session: Session) =>
                  Pessoas.readBackFault(session("payload").as[String], session("location").as[String], body)
                )
                .is("")
            )
        )
    }

  private val search = scenario("search")
    .feed(tsv("termos-busca.tsv").circular)
    .exec(
      http("search")
        .get("/pessoas")
        .queryParam("t", "#{t}")
        .check(
          status.is(200),
          bodyString
            .transformWithSession((body: String, session: Session) =>
              Pessoas.searchFault(session("t").as[String], body)
            )
            .is("")
        )
    )

  private val searchWithoutTerm = scenario("search without t")
    .exec(http("search without t").get("/pessoas").check(status.is(400)))

  setUp(
    createAndRead.inject(
      constantUsersPerSec(2).during(seconds(10)),
      constantUsersPerSec(5).during(seconds(15)).randomized,
      rampUsersPerSec(6).to(600).during(seconds(180))
    ),
    search.inject(
      constantUsersPerSec(2).during(seconds(25)),
      rampUsersPerSec(6).to(100).during(seconds(180))
    ),
    searchWithoutTerm.inject(
      constantUsersPerSec(2).during(seconds(25)),
      rampUsersPerSec(6).to(40).during(seconds(180))
    )
  ).protocols(httpProtocol)

  after {
    created.foreach { file =>
      file.close()
      if (file.checkError()) System.err.println("CREATED_FILE could not be written in full")
    }
  }
}

/** What is wrong with an answer, as a sentence; "" when nothing is. */
object Pessoas {
  private val json = new ObjectMapper
  private val maxHits = 50

  def readBackFault(sent: String, location: String, body: String): String = {
    val expected = json.readTree(sent).asInstanceOf[ObjectNode]
    expected.put("id", location.substring(location.lastIndexOf('/') + 1))
    if (!expected.has("stack")) expected.putNull("stack")
    parse(body) match {
      case Some(got) if got == expected => ""
      case Some(got)                    => s"the person read differs from the person sent: ${brief(got.toString)}"
      case None                         => s"not JSON: ${brief(body)}"
    }
  }

  def searchFault(term: String, body: String): String =
    parse(body) match {
      case Some(hits) if hits.isArray =>
        if (hits.size > maxHits) s"${hits.size} hits, at most $maxHits are allowed"
        else if (hits.asScala.map(_.path("id").asText).toSet.size != hits.size) "a person is there twice"
        else
          hits.asScala
            .find(hit => !contains(hit, lower(term)))
            .fold("")(hit => s"a hit does not contain the term $term: ${brief(hit.toString)}")
      case _ => s"not a JSON array: ${brief(body)}"
    }

  private def contains(hit: JsonNode, term: String): Boolean =
    (Iterator(hit.path("apelido"), hit.path("nome")) ++ hit.path("stack").elements.asScala)
      .exists(field => lower(field.asText).contains(term))

  private def lower(text: String): String = text.toLowerCase(Locale.ROOT)

  private def parse(body: String): Option[JsonNode] =
    Try(json.readTree(body)).toOption.filter(node => node != null && !node.isMissingNode)

  private def brief(text: String): String = if (text.length <= 120) text else text.take(120) + "..."
}
